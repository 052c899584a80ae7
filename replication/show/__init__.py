"""What shows a run: sliders, the explorer, questions, the site. It reads tables and pictures."""
