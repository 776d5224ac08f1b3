# One binary on a small base, as an ordinary user.
#
#   docker build -t anvil .
#   docker run --security-opt seccomp=docs/deploy/seccomp.json --ulimit memlock=-1 -p 50051:50051 -v anvil:/data anvil
#
# docs/deploy says more. Both bases can be others, for a mirror or another libc of the same age:
#   --build-arg BUILD_IMAGE=... has Cargo (or rustup) and apt; --build-arg BASE_IMAGE=... has what the binary is linked with.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
RUN command -v cc >/dev/null || { apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*; }
# The toolchain of the image, without the tools that rust-toolchain.toml lists for developers.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
# Symbols of functions stay, for the traces of panics; lines of code are left to the log's messages.
RUN cargo build --release --locked -p anvil \
    && strip --strip-debug -o /usr/local/bin/anvil target/release/anvil

FROM ${BASE_IMAGE}
# A number, and no name: nobody needs to be made for it in the base. A new volume takes the owner of this directory.
RUN install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=build /usr/local/bin/anvil /usr/local/bin/anvil
COPY LICENSE /usr/share/doc/anvil/LICENSE
USER 10001:10001
ENV ANVIL_DATA_DIR=/data
VOLUME /data
EXPOSE 50051
# Reading the disks of a large node takes a while; from then on /ready follows the node and its databases.
HEALTHCHECK --interval=5s --timeout=5s --start-period=5m --retries=3 CMD ["anvil", "ready"]
# SIGTERM finishes what runs, closes the disks and ends with 0; give it 40 s (docker stop -t 40).
STOPSIGNAL SIGTERM
# No ENTRYPOINT: `command: ["anvil", "--init-cluster"]` names the program itself.
CMD ["anvil", "server"]
