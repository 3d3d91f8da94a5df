-- The declared families become rows and functions; last in this folder, after what they use. Done as
-- the owner: names and descriptions of users' sets are in what it executes.
set local role alphaplus_owner;
select feature._sync();
reset role;
