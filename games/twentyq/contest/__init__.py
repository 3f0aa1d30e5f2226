"""20 Questions as Kaggle's competition played it: spelling rules, Agent Alpha, tournaments."""
