# One executable in a small image. Its data lives in the volume /data.
#   docker build -t belfry . && docker run -p 3000:3000 -v belfry:/data belfry

FROM oven/bun:1.4.5 AS build
WORKDIR /app
COPY package.json bun.lock ./
RUN bun install --frozen-lockfile
COPY . .
RUN bun run build

FROM debian:bookworm-slim
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --system --uid 10001 --home-dir /data --no-log-init belfry \
  && mkdir /data && chown belfry /data
COPY --from=build /app/dist/belfry /usr/local/bin/belfry
USER belfry
WORKDIR /data
VOLUME /data
# The default database is a file under ./data; here the folder itself is the volume.
ENV HOST=0.0.0.0 PORT=3000 DATABASE_URL=file:/data/belfry.db
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["belfry", "health"]
# The binary unpacks its database driver into /tmp, so with --read-only add --tmpfs /tmp:exec.
ENTRYPOINT ["belfry"]
CMD ["serve", "--app", "energy"]
