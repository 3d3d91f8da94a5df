-- depends: 0300_rooms
--
-- 0305: artifacts are tried before they are let in; what checked them takes more arguments now.
drop function if exists ml._check_artifact(bytea, text, integer);
drop function if exists ml._check_onnx(bytea);
drop function if exists ml._check_lightgbm(bytea);
