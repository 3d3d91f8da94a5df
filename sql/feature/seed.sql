-- The declared families become rows and functions; last in this folder, after what they use.
select feature._sync();
