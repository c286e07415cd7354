# r1searcher with everything that trains on NVIDIA GPUs (driver and container toolkit on the host):
#   docker build -f docker/gpu.Dockerfile -t r1searcher:gpu .
#   docker run --rm -it --gpus all --shm-size 16g -v "$PWD:/work" r1searcher:gpu stage1 settings.toml
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

# Python 3.12 from the distribution; g++ and the image's CUDA headers: kernels are compiled during training.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

COPY . /opt/r1searcher
RUN /opt/r1searcher/scripts/install-training gpu /opt/venv \
    && useradd --create-home --uid 10001 r1searcher \
    && install --directory --owner r1searcher /work
ENV PATH=/opt/venv/bin:$PATH

USER 10001
WORKDIR /work
ENTRYPOINT ["r1s"]
CMD ["--help"]
