drop table drift.estimates, drift.detectors, drift.actions, drift.alerts, drift.details, drift.checks,
drift.thresholds, drift.reference_features, drift.version_references, drift.histogram_marks,
drift.coverage, drift.histograms, drift.binnings;
