# A broker or a worker: docker run IMAGE (broker), docker run IMAGE mqueue worker MODULE. The stores are yours: DATABASE_URLS, REDIS_ADDRS.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY mqueue ./mqueue
# The version of a build is given: docker build --build-arg VERSION=1.2.3 (the image has no git to ask)
ARG VERSION=0.0.0
RUN SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MQUEUE="$VERSION" pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/mqueue-*.whl)[broker]" \
 && useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin mqueue \
 && install --directory --owner mqueue --group mqueue --mode 0700 /var/lib/mqueue
WORKDIR /app
COPY examples ./examples
ENV PYTHONUNBUFFERED=1 \
    MQUEUE_HOST=0.0.0.0 \
    MQUEUE_DATA_DIR=/var/lib/mqueue
USER mqueue
VOLUME /var/lib/mqueue
EXPOSE 8080 2112
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --start-interval=1s --retries=3 \
  CMD ["python", "-c", "import os, ssl, urllib.request as u; tls = bool(os.environ.get('TLS_CERT_FILE')); u.urlopen(('https' if tls else 'http') + '://127.0.0.1:' + (os.environ.get('MQUEUE_PORT') or '8080') + '/health', timeout=3, context=ssl._create_unverified_context() if tls else None)"]
CMD ["mqueue", "broker"]
