GRANT INSERT ON jobs TO tollway_metering;
