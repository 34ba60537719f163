// Writes the seeds that are made by code: make_seeds FOLDER.
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/bytes.h"
#include "cli/npy.h"
#include "pef/codec.h"
#include "pef/small_pef.h"
#include "pef/write.h"

namespace shardwright {
namespace {

namespace fs = std::filesystem;

void save(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

std::string file_seed(const pef::Manifest& manifest, const fs::path& scratch) {
  const pef::SmallWeights weights;
  pef::write(scratch.string(), manifest, weights.views());
  std::ifstream file(scratch, std::ios::binary);
  std::string seed(1, '\0');
  seed.append(std::istreambuf_iterator<char>(file), {});
  return seed;
}

// As fuzz_pef.cpp takes them apart.
std::string segments_seed(pef::Manifest manifest, const pef::Plan& plan) {
  manifest.plans = {plan};
  std::string seed(1, '\1');
  const auto append = [&](const std::string& part) {
    append_number<uint32_t>(seed, static_cast<uint32_t>(part.size()));
    seed += part;
  };
  append(pef::encode_manifest(manifest));
  for (const pef::ChipPlan& chip : plan.chips) {
    append(pef::encode_chip(chip));
    append(pef::encode_program(chip.programs.front()));
  }
  return seed;
}

void write_seeds(const fs::path& folder) {
  fs::create_directories(folder / "npy");
  for (const auto& [name, manifest] :
       {std::pair{"small", pef::small_manifest()}, std::pair{"fused", pef::fused_manifest()}}) {
    const std::string prefix = std::string(name) + "_";
    save(folder / "pef" / (prefix + "file"), file_seed(manifest, folder / "scratch.pef"));
    for (const pef::Plan& plan : manifest.plans)
      save(folder / "pef" / (prefix + "segments_" + std::to_string(plan.n_chips)),
           segments_seed(manifest, plan));
  }
  fs::remove(folder / "scratch.pef");
  const float elements[6] = {0, 1, 2, 3, 4, 5};
  cli::write_npy((folder / "npy" / "f32").string(), {DType::kF32, {2, 3}},
                 reinterpret_cast<const std::byte*>(elements));
  save(folder / "canary" / "crash", "sw!");
}

}  // namespace
}  // namespace shardwright

int main(int, char** argv) { shardwright::write_seeds(argv[1]); }
