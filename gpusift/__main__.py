"""`python -m gpusift` is the command `gpusift`."""

from gpusift.cli import main

if __name__ == "__main__":
    main(prog_name="gpusift")
