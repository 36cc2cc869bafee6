"""Networks that two or more families share. A network used by one family lives in that family's file."""
