"""What shows a run: sliders, the explorer, the site. It reads tables and pictures, nothing else."""
