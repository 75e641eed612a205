"""The page that `celforge report` writes: what is counted (survey), the small pictures, and the HTML."""
