drop table ml.trainers;
