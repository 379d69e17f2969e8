# One image for every process of a cascade; which one it is, its command says.
# Build: docker build -t roadstream .
FROM python:3.12-slim-bookworm AS build

ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PROJECT_ENVIRONMENT=/opt/roadstream
RUN pip install --no-cache-dir "uv>=0.8,<1"
WORKDIR /src
# Dependencies first: they change less often than the code.
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --locked --no-install-project
COPY src src
COPY schemas schemas
COPY streams streams
COPY stages stages
COPY sinks sinks
COPY workers workers
COPY cascades cascades
COPY bench bench
RUN uv sync --locked --no-editable

FROM python:3.12-slim-bookworm

RUN useradd --create-home --uid 10001 roadstream \
    && install --directory --owner=10001 --group=10001 /var/lib/roadstream
COPY --from=build /opt/roadstream /opt/roadstream
# What a worker must know after a crash lies in the state folder: mount a volume to keep it.
ENV PATH=/opt/roadstream/bin:$PATH PYTHONUNBUFFERED=1 ROADSTREAM_STATE=/var/lib/roadstream
USER 10001
WORKDIR /home/roadstream
VOLUME /var/lib/roadstream
EXPOSE 9100
# SIGTERM drains within 15 s: running batches are finished and their offsets committed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["roadstream"]
CMD ["--help"]
