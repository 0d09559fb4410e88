#include "isa.h"

namespace openwork {

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();  // asks the operating system too: registers it does not save cannot be used
#endif
#if defined(OPENWORK_HAS_AVX512) || defined(OPENWORK_HAS_AVX512VNNI) || defined(OPENWORK_HAS_AVX512BF16)
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
#if defined(OPENWORK_HAS_AVX512VNNI) || defined(OPENWORK_HAS_AVX512BF16)
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
#endif
#if defined(OPENWORK_HAS_AVX512BF16)
  if (vnni && __builtin_cpu_supports("avx512bf16")) found.push_back(&avx512bf16_kernels());
#endif
#if defined(OPENWORK_HAS_AVX512VNNI)
  if (vnni) found.push_back(&avx512vnni_kernels());
#endif
#if defined(OPENWORK_HAS_AVX512)
  if (avx512) found.push_back(&avx512_kernels());
#endif
#if defined(OPENWORK_HAS_AVX2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2_kernels());
#endif
  found.push_back(&portable_kernels());
  return found;
}

}  // namespace openwork
