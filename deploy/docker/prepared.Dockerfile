# observer as an image, of a directory with `observer`, static, and `ca-certificates.crt`, which may be empty (`cargo xtask image` lays it
# out). No other image is needed.
#
#   docker build -f deploy/docker/prepared.Dockerfile -t observer DIRECTORY

FROM scratch
LABEL org.opencontainers.image.title="observer" \
      org.opencontainers.image.description="eBPF container security observer" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
ENTRYPOINT ["/usr/bin/observer"]
CMD ["run"]
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY observer /usr/bin/observer
