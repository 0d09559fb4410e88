// Which sets of kernels were compiled in, and which of them this processor can run.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace openwork {

// The sets that can run here, best first; the portable one is always the last.
std::vector<const Kernels*> available_kernels();

}  // namespace openwork
