# The server on a CPU, in 1.1 GB. Like TGI's image: port 80, downloads in /data, flags as arguments or environment.
#
#   docker build -t text-generation-inference .
#   docker run -p 8080:80 -v "$PWD/data:/data" text-generation-inference --model-id org/name
#   docker build --target sagemaker .

FROM python:3.12-slim AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /usr/src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY csrc csrc
COPY src src
# `--build-arg EXTRAS=otlp,ray`: for `tgi deploy` and Ray's operator
ARG EXTRAS=otlp
# hadolint ignore=DL3059
RUN python -m venv /opt/tgi
# hadolint ignore=DL3059
RUN /opt/tgi/bin/pip install ".[${EXTRAS}]" "torch==2.13.0+cpu" --find-links https://download.pytorch.org/whl/cpu/torch/
# What serving never reads, 270 MB: headers, tests, programs that test torch, and pip.
# hadolint ignore=DL3059
RUN find /opt/tgi -depth -type d \( -name tests -o -path '*/torch/test' -o -path '*/torch/include' -o -path '*/site-packages/pip' \) -exec rm -rf {} + && find /opt/tgi -path '*/torch/bin/*' -type f ! -name torch_shm_manager -delete

FROM python:3.12-slim AS base
COPY --from=build /opt/tgi /opt/tgi
ENV PATH=/opt/tgi/bin:$PATH \
    HF_HOME=/data \
    PORT=80 \
    HOSTNAME=0.0.0.0 \
    PYTHONUNBUFFERED=1
EXPOSE 80
VOLUME /data

# SageMaker calls port 8080 and starts containers with the argument `serve`, which is ignored.
FROM base AS sagemaker
ENV PORT=8080
EXPOSE 8080
ENTRYPOINT ["sh", "-c", "exec text-generation-launcher"]

FROM base AS server
ENTRYPOINT ["text-generation-launcher"]
