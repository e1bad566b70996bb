# gpusift in a container: on the GPU through NVIDIA's container runtime, on the CPU without.
#
#     docker build -t gpusift .                              # CUDA 13: NVIDIA driver 580 or newer
#     docker build -t gpusift --build-arg EXTRA=cuda12 .     # CUDA 12: driver 525 or newer
#     docker build -t gpusift:cpu --build-arg EXTRA= .       # no CUDA, and some gigabytes smaller
#
#     docker run --rm --gpus all gpusift info
#     docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/data" gpusift extract photos -o features.h5
#
# A volume at /cache keeps the compiled kernels from one run to the next: -v gpusift-cache:/cache

FROM python:3.11-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY kernels kernels
COPY gpusift gpusift
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:3.11-slim-bookworm
ARG EXTRA=cuda13
RUN --mount=type=bind,from=build,source=/wheel,target=/wheel \
    pip install --no-cache-dir --root-user-action=ignore "$(echo /wheel/gpusift-*.whl)${EXTRA:+[$EXTRA]}"
# Any user may write the cache, so that --user works.
RUN useradd --uid 1000 --create-home gpusift \
    && mkdir -m 1777 /cache \
    && install -d -o gpusift -g gpusift /data
ENV HOME=/cache \
    CUPY_CACHE_DIR=/cache/cupy \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER gpusift
WORKDIR /data
ENTRYPOINT ["gpusift"]
CMD ["--help"]
