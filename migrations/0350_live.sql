-- depends: 0329_alerts
--
-- 0350: live streams. market.streams says where each stream of an exchange stands, market.gaps where
-- its record is not whole. Both are written in the transaction that stores the rows.
create table market.streams (
    stream text primary key,
    exchange text not null,
    symbols text [] not null,
    channels text [] not null,
    position bigint not null default 0,
    status text not null default 'starting'
    check (status in ('starting', 'connected', 'reconnecting', 'stopped', 'failed')),
    started_at timestamptz not null default clock_timestamp(),
    heartbeat_at timestamptz not null default clock_timestamp(),
    last_received_at timestamptz,
    last_ts timestamptz,
    clock_offset interval,
    messages bigint not null default 0,
    rows_stored bigint not null default 0,
    reconnects bigint not null default 0,
    spool_bytes bigint not null default 0,
    evicted bigint not null default 0,
    counters jsonb not null default '{}',
    latency_ms double precision [],
    error text,
    run_by text not null default session_user
);

create table market.gaps (
    gap_id bigint generated always as identity primary key,
    stream text not null,
    symbol text collate "C" not null,
    channel text not null,
    how text not null check (
        how in ('sequence', 'outage', 'silence', 'checksum', 'crossed', 'spool', 'unreadable')
    ),
    from_id bigint,
    to_id bigint,
    from_ts timestamptz not null,
    to_ts timestamptz,
    found_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    repaired_at timestamptz,
    repaired_rows bigint not null default 0,
    unique nulls not distinct (stream, symbol, channel, how, from_id, from_ts),
    check (to_ts is null or to_ts >= from_ts),
    check (to_id is null or to_id >= from_id)
);
create index gaps_symbol_idx on market.gaps (symbol, from_ts);
create index gaps_open_idx on market.gaps (symbol, channel) where repaired_at is null;

comment on table market.streams is 'One row per live stream: what it reads, where it stands and how it is.';
comment on column market.streams.stream is 'Its name: what the process that reads it was called with.';
comment on column market.streams.exchange is 'The exchange and market it is connected to, as in: alphaplus stream EXCHANGE.';
comment on column market.streams.symbols is 'Native symbols that are subscribed to.';
comment on column market.streams.channels is 'Channels that are subscribed to: trades, book, liquidations, funding, open_interest, candles.';
comment on column market.streams.position is 'Number of the last frame of its spool whose rows are stored: what comes after it is not stored yet.';
comment on column market.streams.status is 'starting, connected, reconnecting, stopped (by its user) or failed.';
comment on column market.streams.started_at is 'When its process started.';
comment on column market.streams.heartbeat_at is 'When its process last wrote here.';
comment on column market.streams.last_received_at is 'When its newest stored message came in.';
comment on column market.streams.last_ts is 'The exchange''s time of its newest stored row.';
comment on column market.streams.clock_offset is 'Median of receive time less exchange time of recent messages: negative where the exchange''s clock is ahead of ours.';
comment on column market.streams.messages is 'Messages taken since its process started.';
comment on column market.streams.rows_stored is 'Rows stored since its process started; rows that were there already do not count.';
comment on column market.streams.reconnects is 'Connections made after the first one.';
comment on column market.streams.spool_bytes is 'Bytes waiting in its spool on disk.';
comment on column market.streams.evicted is 'Messages thrown out of a full spool, oldest of the least valuable channel first.';
comment on column market.streams.counters is 'What else was counted, by what: unknown kinds of messages and fields, repeated updates, crossed books, refused rows.';
comment on column market.streams.latency_ms is 'Milliseconds from receipt to commit of the last batch: first, median and last message.';
comment on column market.streams.error is 'What went wrong last; null: nothing.';
comment on column market.streams.run_by is 'The role its process works as.';
comment on table market.gaps is 'Holes in the record of a live stream: found when a message does not follow the one before it, when a connection was down, or when a book contradicts itself. A hole whose rows came later has repaired_at.';
comment on column market.gaps.gap_id is 'Number of the gap.';
comment on column market.gaps.stream is 'The stream in market.streams that found it.';
comment on column market.gaps.symbol is 'The instrument.';
comment on column market.gaps.channel is 'What is missing: trades, book, liquidations, funding, open_interest or candles.';
comment on column market.gaps.how is 'How it was found. sequence: numbers skipped; outage: the connection was down and the channel has no numbers; silence: no message for longer than allowed; checksum: the book is not the exchange''s; crossed: its best bid reached its best ask; spool: thrown out of a full spool; unreadable: a message could not be read.';
comment on column market.gaps.from_id is 'The first number missing (of a book: of the last update before the gap, where numbers are not consecutive); null where the channel has no numbers.';
comment on column market.gaps.to_id is 'The last number missing; null where it is not known.';
comment on column market.gaps.from_ts is 'Exchange time of the last message before the gap.';
comment on column market.gaps.to_ts is 'Exchange time of the first message after it, of a book: from which it was whole again; null: it lasts.';
comment on column market.gaps.found_at is 'When it was found: before, nobody knew of it.';
comment on column market.gaps.ended_at is 'When the stream was whole again; null: it is not.';
comment on column market.gaps.repaired_at is 'When the last missing row was stored; null: rows are missing.';
comment on column market.gaps.repaired_rows is 'Rows that came later and fill it.';
