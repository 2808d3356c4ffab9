"""In what order the library's steps are taken, as Prefect flows. What a step does is none of their business."""
