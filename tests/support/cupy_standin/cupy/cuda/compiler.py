"""What the compiler raises."""

from standin.errors import CompileException as CompileException
