-- depends: 0100_set_deletes
--
-- 0101: vectors in chunks of 30 days, as bars are: years of daily ones had a chunk a week, and a
-- question about one of them looked at hundreds. Chunks that are there stay as they are.
select public.set_chunk_time_interval('feature.vectors', interval '30 days');
