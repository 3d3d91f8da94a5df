drop table ops.alert_deliveries, ops.alert_consumers, ops.alert_mutes, ops.alerts;
drop function ops._announce_alerts();
