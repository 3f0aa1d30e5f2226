"""20 Questions as Kaggle's competition played it: spelling rules, the alphabet's protocol, tournaments."""
