/* shapes.c: a data set that needs no file: ten kinds of shapes, 3x32x32, of random place, size, colours and noise.
 *
 * Image i is drawn from Philox words of its own, keyed by the part (training or test), so that any image can be drawn alone, the
 * two parts share none, and every machine draws the same bytes (all is integer arithmetic). Label i is i mod 10; as a mask it is, of each pixel, 0 on the
 * ground and one more than that in the shape. */
#include "../runtime.h"

#include <stdlib.h>

enum { SIDE = 32, PIXELS = SIDE * SIDE, N_KINDS = 10 };

static int64_t distance(int64_t a) { return a < 0 ? -a : a; }

/* Whether the point (x, y), in sixteenths of a pixel from the centre, is in the shape of radius r. */
static bool inside(int kind, int64_t x, int64_t y, int64_t r) {
  int64_t ax = distance(x), ay = distance(y), largest = ax > ay ? ax : ay, square = x * x + y * y, thin = r * 3 / 8;
  switch (kind) {
  case 0: return square <= r * r;                                            /* disc */
  case 1: return square <= r * r && square >= (r - thin) * (r - thin);       /* ring */
  case 2: return largest <= r * 7 / 8;                                       /* square */
  case 3: return largest <= r * 7 / 8 && largest >= r * 7 / 8 - thin;        /* frame */
  case 4: return y >= -r && y <= r && 2 * ax <= y + r;                       /* triangle, pointing up */
  case 5: return y >= -r && y <= r && 2 * ax <= r - y;                       /* triangle, pointing down */
  case 6: return largest <= r && (ax <= thin || ay <= thin);                 /* cross */
  case 7: return largest <= r && distance(ax - ay) <= thin;                  /* diagonal cross */
  case 8: return ay <= thin && ax <= r;                                      /* horizontal bar */
  default: return ax <= thin && ay <= r;                                     /* vertical bar */
  }
}

static void draw(uint8_t *pixels, uint8_t *mask, int kind, uint64_t image, uint32_t part) {
#define WORD(i) tt_random_word(image, 0, part, (uint64_t)(i))
  int64_t r = 16 * 6 + WORD(0) % (16 * 7), room = 16 * SIDE / 2 - r;         /* radius 6 to 13 pixels, within the picture */
  int64_t cx = 16 * SIDE / 2 + (int64_t)(WORD(1) % (uint64_t)(2 * room + 1)) - room, cy = 16 * SIDE / 2 + (int64_t)(WORD(2) % (uint64_t)(2 * room + 1)) - room;
  int colour[2][3], darker = (int)(WORD(3) & 1);                             /* ground and shape differ in every channel */
  for (int c = 0; c < 3; c++) {
    colour[darker][c] = 20 + (int)(WORD(4 + c) % 70);
    colour[!darker][c] = 140 + (int)(WORD(8 + c) % 95);
  }
  uint32_t noise = 1 + WORD(12) % 40, words[4];
  for (int y = 0; y < SIDE; y++)
    for (int x = 0; x < SIDE; x++) {
      if (x % 4 == 0) tt_philox(10, (uint32_t[4]){(uint32_t)(y * SIDE + x), 0, 1, part}, (uint32_t[2]){(uint32_t)image, (uint32_t)(image >> 32)}, words);
      bool in = inside(kind, 16 * x + 8 - cx, 16 * y + 8 - cy, r);
      uint32_t word = words[x % 4];
      if (mask) mask[y * SIDE + x] = in ? (uint8_t)(kind + 1) : 0;
      for (int c = 0; c < 3; c++) {
        int value = colour[in][c] + (int)((word >> (10 * c) & 1023) * (2 * noise) / 1023) - (int)noise;
        pixels[c * PIXELS + y * SIDE + x] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
      }
    }
#undef WORD
}

tt_status rt_shapes_images(int64_t count, bool train, bool masks, rt_images *images, tt_error *err) {
  *images = (rt_images){0};
  rt_images r = {.n = count, .channels = 3, .height = SIDE, .width = SIDE, .pixels = malloc((size_t)count * 3 * PIXELS), .labels = malloc((size_t)count * (masks ? PIXELS : 1)), .pixel_labels = masks};
  if (!r.pixels || !r.labels) {
    free(r.pixels);
    free(r.labels);
    return tt_fail(err, TT_NO_MEMORY, "error: no memory for %lld images\n  at shapes:%lld\n  fix: ask for fewer", (long long)count, (long long)count);
  }
  for (int64_t i = 0; i < count; i++) {
    if (!masks) r.labels[i] = (uint8_t)(i % N_KINDS);
    draw(r.pixels + i * 3 * PIXELS, masks ? r.labels + i * PIXELS : NULL, (int)(i % N_KINDS), (uint64_t)i, train ? 1 : 2);
  }
  *images = r;
  return TT_OK;
}
