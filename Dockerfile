# One binary on a small base. Build: docker build -t anvil .
# Run: docker run -p 50051:50051 -v anvil:/data anvil
# Docker 25 and newer refuse io_uring by default: add --security-opt seccomp=unconfined (docs/OPERATIONS.md).
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# The toolchain of the image, without the tools that rust-toolchain.toml lists for developers.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p anvil \
    && cp target/release/anvil /usr/local/bin/anvil

FROM debian:bookworm-slim
RUN useradd --no-create-home --uid 10001 --home-dir /data --shell /usr/sbin/nologin anvil \
    && install -d -o anvil -g anvil -m 0700 /data
COPY --from=build /usr/local/bin/anvil /usr/local/bin/anvil
COPY LICENSE /usr/share/doc/anvil/LICENSE
USER anvil
ENV ANVIL_DATA_DIR=/data
VOLUME /data
EXPOSE 50051
# SIGTERM finishes what runs, closes the disks and ends with 0.
STOPSIGNAL SIGTERM
# No ENTRYPOINT: `command: ["anvil", "--init-cluster"]` names the program itself.
CMD ["anvil", "server"]
