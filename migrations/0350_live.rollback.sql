drop table market.gaps;
drop table market.streams;
