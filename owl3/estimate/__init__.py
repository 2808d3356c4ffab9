"""What a recipe costs on a cluster before anything is started: hours, bytes, requests, GPU-hours and money."""
