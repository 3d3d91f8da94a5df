drop schema analytics;
drop schema sentiment;
drop schema drift;
drop schema ml;
drop schema regime;
drop schema feature;
drop schema market;
