# The one image of the shop. Its commands: product, order, sse, migrate product|order, reconcile, simulate, load-demo;
# drain and warm are for the gateway's probes and hooks.
FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements/runtime.txt ./
RUN python -m venv --without-pip /opt/venv \
 && python -m pip install --no-cache-dir --no-compile --require-hashes --only-binary :all: \
      --target "$(/opt/venv/bin/python -c 'import site; print(site.getsitepackages()[0])')" --requirement runtime.txt
COPY proto /app/proto
COPY runtime /app/runtime
COPY product /app/product
COPY order /app/order
COPY sse /app/sse
COPY demo /app/demo
# Each command is a program: `docker run IMAGE product`, or `args: [migrate, product]` in a pod.
RUN mkdir /commands && cd /commands \
 && for service in product order sse; do printf '#!/bin/sh\nexec python -m %s "$@"\n' "$service" >"$service"; done \
 && printf '#!/bin/sh\nexec python -m "${1:?product or order}" migrate\n' >migrate \
 && printf '#!/bin/sh\nexec python -m order reconcile "$@"\n' >reconcile \
 && printf '#!/bin/sh\nexec python -m demo simulate\n' >simulate \
 && printf '#!/bin/sh\nexec python -m demo load\n' >load-demo \
 && for helper in drain warm; do printf '#!/bin/sh\nexec python -S -m sse.%s "$@"\n' "$helper" >"$helper"; done \
 && chmod 0755 * \
 # Compiled here, since a pod cannot write; unchecked, since nothing in an image changes.
 && python -m compileall -q --invalidation-mode unchecked-hash /app /opt/venv/lib

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
COPY --from=build /commands /usr/local/bin
COPY --from=build /app /app
# glibc keeps a heap for each thread of gRPC and of the driver; two are enough, and cost half of the memory. The driver
# brings an OpenSSL of its own, which looks for the public authorities (`sslrootcert=system`) in a folder that nobody has.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app:/app/proto \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR /app
USER 10001:10001
EXPOSE 50052 50053 50054 8081
CMD ["sh", "-c", "echo 'usage: product | order | sse | migrate product|order | reconcile | simulate | load-demo' >&2; exit 2"]
