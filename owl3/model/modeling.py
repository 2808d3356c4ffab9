"""The Owl3 model: a Qwen2 language model that looks at SigLIP images in a few hyper attention layers.

The tensor contract of `Owl3ForConditionalGeneration.forward`. B rows, S columns, I images in the whole batch,
L visual tokens per image. A *row* holds one sample (perhaps padded, on either side) or several samples (packed).

| argument             | shape, dtype       | meaning                                                                      |
| -------------------- | ------------------ | ---------------------------------------------------------------------------- |
| `input_ids`          | (B, S) int64       | token ids; the `<|image|>` placeholder is five ordinary tokens               |
| `segment_ids`        | (B, S) int64       | 0 = padding; 1, 2, … = the row's samples, each one contiguous run of columns |
| `position_ids`       | (B, S) int64       | rotary positions, restarting at 0 in every sample; padding: any value        |
| `pixel_values`       | (I, 3, H, W) float | all pictures of the batch (global views, tiles, video frames alike)          |
| `image_rows`         | (I,) int64         | the row in which the image's placeholder stands                              |
| `image_starts`       | (I,) int64         | the *column* of the placeholder's first token (an index, not a position)     |
| `labels`             | (B, S) int64       | `input_ids` where trained, -100 elsewhere; **not** shifted                   |
| `num_items_in_batch` | int or 0-d tensor  | the loss is the sum of token losses divided by this                          |

* All but `input_ids` may be absent. Without `segment_ids`, `attention_mask` (B, S; 1 = token, 0 = padding) says the
  same for one sample per row; without both, every column is a token. Without `position_ids` they are counted from
  the first token of each sample. Without `num_items_in_batch` the loss is a mean over this batch's trained tokens.
* A batch without any image passes `pixel_values=None` (and no `image_rows`, `image_starts`). Every trainable visual
  parameter still takes part, with zero effect and a zero (not missing) gradient.
* Order of images is free; an image is seen only by later tokens of its own sample.
* A label at the first token of a packed sample is ignored: no token of the same sample comes before it.
* With `labels` the result holds `loss` and no logits, unless `return_logits=True`.
"""
