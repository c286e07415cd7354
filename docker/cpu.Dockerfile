# r1searcher with everything that trains on a CPU:
#   docker build -f docker/cpu.Dockerfile -t r1searcher:cpu .
#   docker run --rm -it -v "$PWD/runs:/work/runs" r1searcher:cpu demo
FROM python:3.12-slim-bookworm

# g++: torch compiles kernels at run time.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

# A CPU build of torch saves 2.7 GB if pip finds one: --build-arg PIP_EXTRA_INDEX_URL=URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

COPY . /opt/r1searcher
RUN /opt/r1searcher/scripts/install-training cpu /opt/venv \
    && useradd --create-home --uid 1000 r1searcher \
    && install --directory --owner r1searcher /work /work/runs
ENV PATH=/opt/venv/bin:$PATH

USER 1000
WORKDIR /work
ENTRYPOINT ["r1s"]
CMD ["--help"]
