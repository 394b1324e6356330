/* image.h: compiled kernels as bytes, in a file and in memory.
 *
 * An image is one kernel's machine code followed by its constants. It refers to nothing outside of itself, and to itself only by distances, so it
 * runs wherever it is put: to load is to copy. On disk a head stands before it, with the key that it was asked for by and a checksum over all. */
#ifndef TT_IMAGE_H
#define TT_IMAGE_H

#include "program.h"

typedef struct { uint8_t bytes[16]; } rt_key;

typedef struct {
  void *data; size_t bytes;        /* code and constants, to be put at a multiple of RT_IMAGE_ALIGN */
  size_t entry;                    /* where the kernel begins */
} rt_image;
enum { RT_IMAGE_ALIGN = 64, RT_IMAGE_MAX = 64 << 20, RT_IMAGE_HEAD = 128, RT_IMAGE_ABOUT = 56 };

TT_API rt_key rt_key_of(const void *data, size_t bytes);               /* XXH3, 128 bits */
TT_API char *rt_key_text(const rt_key *k, char text[33]);              /* hexadecimal; returns text */

/* The head before an image in a file. about: a few words for people, cut to fit. */
TT_API void rt_image_head(const rt_image *image, const rt_key *key, const char *about, uint8_t head[RT_IMAGE_HEAD]);
/* Checks all of a file's bytes and gives what is in it: the image's data stays inside of `file`. key NULL: any. about may be NULL. The answer is
 * NULL, or what is wrong with the file. */
TT_API const char *rt_image_parse(const void *file, size_t bytes, const rt_key *key, rt_image *image, char about[RT_IMAGE_ABOUT]);

/* Memory that holds the code of some kernels: written first, then executable and no longer writable. */
typedef struct rt_code rt_code;
TT_API rt_code *rt_code_load(const rt_image *images, int n, rt_kernel **kernels, tt_error *err);
TT_API void rt_code_free(rt_code *c);                                  /* NULL is fine */

#endif
