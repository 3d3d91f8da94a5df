select public.set_chunk_time_interval('feature.vectors', interval '7 days');
