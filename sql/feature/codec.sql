-- How numbers leave a query for numpy: as they lie in memory. The server's own send functions take
-- 35 ns a number, most of it for a buffer of a kilobyte each; an array of them takes 5 ns each.
-- Both functions are names for what the server has anyway; they look at bytes only, and resolve no
-- name that a search_path could change.

-- An array's bytes from one of them on. From 1: a header (alphaplus.server.codec knows it) and the
-- numbers; from 21: the numbers alone, of one dimension without nulls, as the machine orders bytes.
create or replace function feature._bytes(numbers double precision [], start integer) returns bytea
language internal immutable strict parallel safe
as 'bytea_substr_no_len';

-- A time as a number with the same eight bytes: microseconds since 2000-01-01 UTC.
create or replace function feature._bits(ts timestamptz) returns double precision
language internal immutable strict parallel safe
as 'int8up';
