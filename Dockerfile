# The one image of the shop. Its commands are the console scripts of pyproject.toml: product, order, sse, demo, and
# gateway-drain and gateway-warm for the gateway's hooks and probes. Each has `--help`.
FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements/runtime.txt requirements/build.txt ./
RUN python -m venv --without-pip /opt/venv \
 && python -m pip install --no-cache-dir --no-compile --require-hashes --only-binary :all: \
      --target "$(/opt/venv/bin/python -c 'import site; print(site.getsitepackages()[0])')" --requirement runtime.txt \
 && python -m pip install --no-cache-dir --no-compile --require-hashes --only-binary :all: --requirement build.txt
COPY . ./
RUN python -m pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir dist . \
 && python -m pip --python /opt/venv/bin/python install --no-deps --no-index --no-compile dist/*.whl \
 # Compiled here, since a pod cannot write; unchecked, since nothing in an image changes.
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

FROM python:3.13-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="shopping-cart" \
      org.opencontainers.image.description="Product, order and event-stream services of the shopping cart" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# A pod needs no installer.
RUN rm -rf /usr/local/lib/python3*/site-packages/pip* /usr/local/bin/pip* \
 && groupadd --gid 10001 shop && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin shop
COPY --from=build /opt/venv /opt/venv
# glibc keeps a heap for each thread of gRPC and of the driver; two are enough, and cost half of the memory. The driver
# brings an OpenSSL of its own, which looks for the public authorities (`sslrootcert=system`) in a folder that nobody has.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 10001:10001
EXPOSE 50052 50053 50054 8081
CMD ["sh", "-c", "echo 'usage: product | order | sse | demo, each with --help' >&2; exit 2"]
