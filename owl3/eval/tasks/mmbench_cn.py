"""mmbench-cn: MMBench in Chinese (Liu et al. 2023).

Split: test 20231003 in the paper (server: submission.xlsx is written); dev scores itself. Metric: circular accuracy.
Prompt: as mmbench-en, its frame in English.

    index 1, question "能生成这张图片上输出的正确 Python 代码是什么?", A "for x in range(6): …", …, answer "D"
"""

from owl3.eval.tasks._mmbench import mmbench

TASK = mmbench("cn", paper={"7B-240728": 0.743, "7B-241101": 0.791, "1B": 0.448, "2B": 0.618})
