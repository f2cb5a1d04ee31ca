#!/usr/bin/env bash
# What somebody does on an old PC that Ansible cannot reach when the bot comes back: the new file takes the old one's place, the bot is started.
# Prints what is typed then.
set -euo pipefail
world=$1
from=$ETL_CACHE/world.$world/handed-over
to=/home/player/etlegacy-bot
docker exec "$world-old-pc" mv "$to/bot/etlegacy_production.db" "$to/bot/etlegacy_production.db.migrated"
docker cp -q "$from/bot/etlegacy_production.db" "$world-old-pc:$to/bot/"
docker cp -q "$from/local_stats" "$world-old-pc:$to/"
docker exec "$world-old-pc" chmod 0644 "$to/bot/etlegacy_production.db" # as the old one
docker exec "$world-old-pc" chown -R player:player "$to/bot/etlegacy_production.db" "$to/local_stats"
docker exec "$world-old-pc" systemctl enable --now etlegacy-bot
docker exec "$world-old-pc" rm "$to/bot/etlegacy_production.db.migrated"
echo serves
