// PackSource: rows of a matrix as a checkpoint holds them, on their way into the packed layout.
#pragma once

#include <cstddef>
#include <cstdint>

namespace openwork {

enum class SourceNumber : int { float32, float16, bfloat16 };

struct PackSource {
  SourceNumber number;
  const char* data;
  std::int64_t rows, k;
  std::ptrdiff_t row_stride, column_stride;  // bytes
};

}  // namespace openwork
