drop table market.corporate_actions;
drop table market.corporate_actions_history;
