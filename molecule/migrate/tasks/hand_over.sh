#!/usr/bin/env bash
# What somebody does with an old PC that Ansible cannot reach: stop the bot for good, bring its file and folder to this machine.
set -euo pipefail
world=$1
to=$ETL_CACHE/world.$world/handed-over
from=$world-old-pc:/home/player/etlegacy-bot
docker exec "$world-old-pc" systemctl disable --now etlegacy-bot
rm -rf "$to"
mkdir -p "$to/bot"
docker cp -q "$from/bot/etlegacy_production.db" "$to/bot/"
docker cp -q "$from/local_stats" "$to/"
