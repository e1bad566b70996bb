# gpusift in a container, as a batch job: on the GPU through NVIDIA's container runtime, on the CPU without.
#
#     docker build -t gpusift .                              # CUDA 13: NVIDIA driver 580 or newer
#     docker build -t gpusift --build-arg EXTRAS=cuda12,colmap,dask-cuda12,gs,http,nvimgcodec-cuda12,opencv,parquet,s3 .
#                                                            # CUDA 12: driver 525
#     docker build -t gpusift:cpu --build-arg EXTRAS=colmap,dask,gs,http,opencv,parquet,s3 .   # no CUDA, and gigabytes smaller
#
#     docker run --rm --gpus all gpusift info --check        # exit code 0: the devices compute what they should
#     docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/data" gpusift extract photos -o features.h5
#
# The root file system can be read-only; a volume at /cache keeps the compiled kernels between runs:
#
#     docker run --rm --gpus all --read-only --tmpfs /tmp -v gpusift-cache:/cache -v "$PWD:/data" gpusift extract ...
#
# `docker stop` sends SIGTERM, which ends a run after the current batch; the same command resumes it. A Dask scheduler
# and GPU workers: docker-compose.yml.

# Known bytes: the base by the digest of its index of platforms. Dependabot proposes newer ones.
FROM python:3.11-slim-bookworm@sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b AS base

FROM base AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY kernels kernels
COPY gpusift gpusift
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM base
# tini, as process 1, forwards signals and reaps worker processes that have ended.
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*
ARG EXTRAS=cuda13,colmap,dask-cuda13,gs,http,nvimgcodec,opencv,parquet,s3
RUN --mount=type=bind,from=build,source=/wheel,target=/wheel \
    pip install --no-cache-dir --root-user-action=ignore "$(echo /wheel/gpusift-*.whl)${EXTRAS:+[$EXTRAS]}"
# Every user may write to the cache, for --user.
RUN useradd --uid 1000 --create-home gpusift \
    && mkdir -m 1777 /cache \
    && install -d -o gpusift -g gpusift /data
ENV HOME=/cache \
    CUPY_CACHE_DIR=/cache/cupy \
    DASK_TEMPORARY_DIRECTORY=/tmp \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER gpusift
WORKDIR /data
# No HEALTHCHECK: a job reports by its exit code, and a check of the device would take GPU memory beside the job.
ENTRYPOINT ["tini", "--", "gpusift"]
CMD ["--help"]
