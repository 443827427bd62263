DROP EVENT nightly;
