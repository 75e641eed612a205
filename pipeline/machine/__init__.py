"""What `celforge doctor` looks at: the machine, its packages, and what is wrong with them."""
