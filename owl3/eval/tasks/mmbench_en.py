"""mmbench-en: multiple choice over 20 abilities, English (Liu et al. 2023).

Split: test 20231003 in the paper (server: submission.xlsx is written); dev scores itself. Metric: circular accuracy: a
question counts when it is right under every rotation of its options. Prompt: `<image>Context: {hint or N/A}
Question: {question} Options: {A. …} Answer with the option’s letter from the given choices directly.`

    index 241, question "Which of these continents does the equator intersect?", A "North America", …, answer "B"
"""

from owl3.eval.tasks._mmbench import mmbench

TASK = mmbench("en", paper={"7B-240728": 0.776, "7B-241101": 0.804, "1B": 0.514, "2B": 0.657})
