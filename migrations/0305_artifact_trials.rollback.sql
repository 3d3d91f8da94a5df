drop function if exists ml._check_artifact(bytea, text, jsonb, text [], text);
drop function if exists ml._check_onnx(bytea, integer);
drop function if exists ml._check_lightgbm(bytea, integer);
