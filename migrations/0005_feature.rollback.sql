drop table feature.vector_blocks;
drop table feature.watermarks;
drop table feature.pending;
drop table feature.vectors;
drop table feature.definitions;
drop table feature.sets;
