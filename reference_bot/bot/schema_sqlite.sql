-- The bot's tables in SQLite. Twin of schema.sql (PostgreSQL): same tables, columns, keys and indexes.
-- Times that the database fills in are UTC. "ferry: sqlite" tells `ferry audit-sql` not to ask PostgreSQL.

-- ferry: sqlite
CREATE TABLE IF NOT EXISTS rounds (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    round_date TEXT NOT NULL,
    round_time TEXT NOT NULL,
    match_id TEXT NOT NULL,
    map_name TEXT NOT NULL,
    round_number INTEGER NOT NULL,
    time_limit TEXT,
    actual_time TEXT,
    winner_team INTEGER,
    defender_team INTEGER,
    is_tied BOOLEAN DEFAULT 0,
    round_outcome TEXT,
    gaming_session_id INTEGER,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (match_id, round_number)
);

-- ferry: sqlite
CREATE TABLE IF NOT EXISTS player_comprehensive_stats (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    round_id INTEGER NOT NULL REFERENCES rounds (id),
    round_date TEXT NOT NULL,
    map_name TEXT NOT NULL,
    round_number INTEGER NOT NULL,
    player_guid TEXT NOT NULL,
    player_name TEXT NOT NULL,
    clean_name TEXT NOT NULL,
    team INTEGER NOT NULL,
    time_played_seconds INTEGER NOT NULL DEFAULT 0,
    time_played_percent INTEGER NOT NULL DEFAULT 0,
    kills INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    headshots INTEGER NOT NULL DEFAULT 0,
    headshot_kills INTEGER NOT NULL DEFAULT 0,
    damage_given INTEGER NOT NULL DEFAULT 0,
    damage_received INTEGER NOT NULL DEFAULT 0,
    team_damage_given INTEGER NOT NULL DEFAULT 0,
    team_damage_received INTEGER NOT NULL DEFAULT 0,
    gibs INTEGER NOT NULL DEFAULT 0,
    self_kills INTEGER NOT NULL DEFAULT 0,
    team_kills INTEGER NOT NULL DEFAULT 0,
    team_gibs INTEGER NOT NULL DEFAULT 0,
    xp INTEGER NOT NULL DEFAULT 0,
    killing_spree INTEGER NOT NULL DEFAULT 0,
    death_spree INTEGER NOT NULL DEFAULT 0,
    kill_assists INTEGER NOT NULL DEFAULT 0,
    kill_steals INTEGER NOT NULL DEFAULT 0,
    objectives_stolen INTEGER NOT NULL DEFAULT 0,
    objectives_returned INTEGER NOT NULL DEFAULT 0,
    dynamites_planted INTEGER NOT NULL DEFAULT 0,
    dynamites_defused INTEGER NOT NULL DEFAULT 0,
    times_revived INTEGER NOT NULL DEFAULT 0,
    revives_given INTEGER NOT NULL DEFAULT 0,
    bullets_fired INTEGER NOT NULL DEFAULT 0,
    useful_kills INTEGER NOT NULL DEFAULT 0,
    useless_kills INTEGER NOT NULL DEFAULT 0,
    denied_playtime INTEGER NOT NULL DEFAULT 0,
    double_kills INTEGER NOT NULL DEFAULT 0,
    triple_kills INTEGER NOT NULL DEFAULT 0,
    quad_kills INTEGER NOT NULL DEFAULT 0,
    multi_kills INTEGER NOT NULL DEFAULT 0,
    mega_kills INTEGER NOT NULL DEFAULT 0,
    full_self_kills INTEGER NOT NULL DEFAULT 0,
    repairs INTEGER NOT NULL DEFAULT 0,
    dpm REAL NOT NULL DEFAULT 0,
    kd_ratio REAL NOT NULL DEFAULT 0,
    efficiency REAL NOT NULL DEFAULT 0,
    accuracy REAL NOT NULL DEFAULT 0,
    time_played_minutes REAL NOT NULL DEFAULT 0,
    time_dead_minutes REAL NOT NULL DEFAULT 0,
    time_dead_ratio REAL NOT NULL DEFAULT 0,
    tank_meatshield REAL NOT NULL DEFAULT 0,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (round_id, player_guid)
);

-- ferry: sqlite
CREATE TABLE IF NOT EXISTS weapon_comprehensive_stats (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    round_id INTEGER NOT NULL REFERENCES rounds (id),
    player_guid TEXT NOT NULL,
    player_name TEXT NOT NULL,
    weapon_name TEXT NOT NULL,
    kills INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    headshots INTEGER NOT NULL DEFAULT 0,
    shots INTEGER NOT NULL DEFAULT 0,
    hits INTEGER NOT NULL DEFAULT 0,
    accuracy REAL NOT NULL DEFAULT 0,
    UNIQUE (round_id, player_guid, weapon_name)
);

CREATE TABLE IF NOT EXISTS player_links (
    discord_id BIGINT PRIMARY KEY,
    discord_username TEXT NOT NULL,
    et_guid TEXT UNIQUE,
    et_name TEXT,
    linked_date TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    verified BOOLEAN DEFAULT 0
);

-- ferry: sqlite
CREATE TABLE IF NOT EXISTS processed_files (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    filename TEXT NOT NULL UNIQUE,
    file_hash TEXT,
    success BOOLEAN NOT NULL DEFAULT 1,
    error_message TEXT,
    processed_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);

-- ferry: sqlite
CREATE TABLE IF NOT EXISTS session_teams (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session_start_date TEXT NOT NULL,
    map_name TEXT NOT NULL,
    team_name TEXT NOT NULL,
    player_guids TEXT NOT NULL,
    player_names TEXT NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (session_start_date, map_name, team_name)
);

-- ferry: sqlite
CREATE TABLE IF NOT EXISTS player_aliases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid TEXT NOT NULL,
    alias TEXT NOT NULL,
    first_seen TIMESTAMP,
    last_seen TIMESTAMP,
    times_seen INTEGER NOT NULL DEFAULT 1,
    UNIQUE (guid, alias)
);

CREATE INDEX IF NOT EXISTS idx_rounds_date_map ON rounds (round_date, map_name);
CREATE INDEX IF NOT EXISTS idx_rounds_match_id ON rounds (match_id);
CREATE INDEX IF NOT EXISTS idx_players_date_map ON player_comprehensive_stats (round_date, map_name);
CREATE INDEX IF NOT EXISTS idx_players_round_id ON player_comprehensive_stats (round_id);
CREATE INDEX IF NOT EXISTS idx_players_guid ON player_comprehensive_stats (player_guid);
CREATE INDEX IF NOT EXISTS idx_weapons_round_id ON weapon_comprehensive_stats (round_id);
CREATE INDEX IF NOT EXISTS idx_weapons_guid ON weapon_comprehensive_stats (player_guid);
