-- One row: what is written wrongly, whether a file was written after the server last read its files,
-- what waits for a restart, and which of our settings another place overrides.
SELECT
    (SELECT coalesce(array_agg(format('line %%s of pg_hba.conf: %%s', line_number, error)), '{}')
       FROM pg_hba_file_rules WHERE error IS NOT NULL) AS errors,
    -- pg_stat_file() knows whole seconds only: what was written in the same second may be unread.
    (SELECT bool_or((pg_stat_file(path)).modification >= date_trunc('second', pg_conf_load_time()))
       FROM unnest(ARRAY[
           %(conf)s,
           current_setting('hba_file'),
           current_setting('ident_file'),
           current_setting('ssl_cert_file')
       ]) AS path) AS stale,
    current_setting('data_checksums') = 'on' AS checksums,
    (SELECT coalesce(array_agg(name), '{}') FROM pg_settings WHERE pending_restart) AS pending,
    (SELECT coalesce(array_agg(format('%%s (set in %%s)', ours.name, used.sourcefile)), '{}')
       FROM pg_file_settings AS ours
       JOIN pg_settings AS used ON used.name = lower(ours.name)
      WHERE ours.sourcefile = %(conf)s
        AND NOT used.pending_restart
        AND used.sourcefile IS DISTINCT FROM %(conf)s) AS shadowed
